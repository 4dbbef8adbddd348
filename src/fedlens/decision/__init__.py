"""From a softmax to advice: calibrated probabilities, prediction sets, and when to ask a specialist.

Everything is fitted from sums of integers over hospitals' images (``totals.py``), so that no image's
score has to leave its hospital. What results travels beside the checkpoint (``bundle.py``).
"""
