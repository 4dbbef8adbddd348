"""Networks as ONNX files: written with torch (``to_onnx``, ``quantise``), run without it (``runtime``)."""
