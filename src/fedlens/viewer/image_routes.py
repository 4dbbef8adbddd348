"""Addresses of what the case page draws: pixels, maps, outlines and small pictures."""

from __future__ import annotations

import json

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse, Response

from fedlens.explain.overlay import colour_table
from fedlens.viewer.case_images import as_shown, eight_bit
from fedlens.viewer.pictures import (
    LARGEST_SIDE,
    Thumbnails,
    heat,
    overlay_picture,
    polygons,
    shrunk,
)
from fedlens.viewer.services import Services

_BYTES = "application/octet-stream"


def image_router(services: Services) -> APIRouter:
    """Routes below ``/case/{id}``, and ``/colours``."""
    router = APIRouter()
    thumbnails = Thumbnails()

    @router.get("/colours")
    def colours() -> Response:
        """256 x 3 bytes RGB: the colour of each heat."""
        return Response(colour_table().tobytes(), media_type=_BYTES)

    @router.get("/case/{case_id}/pixels")
    def pixels(case_id: str) -> Response:
        """Values row by row, little-endian; ``X-Image`` says how to read them."""
        shown = as_shown(services, services.known(case_id))
        values = shrunk(shown.values, LARGEST_SIDE)
        described = {
            "height": values.shape[0],
            "width": values.shape[1],
            "channels": 1 if values.ndim == 2 else 3,
            "bits": values.dtype.itemsize * 8,
            "centre": shown.centre,
            "span": shown.span,
            "offset": shown.offset,
            "scale": shown.scale,
        }
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        return Response(little.tobytes(), media_type=_BYTES, headers={"X-Image": json.dumps(described)})

    @router.get("/case/{case_id}/thumbnail")
    def thumbnail(case_id: str) -> Response:
        case = services.known(case_id)
        picture = thumbnails.get(case_id, lambda: eight_bit(services, case))
        return Response(picture, media_type="image/jpeg")

    @router.get("/case/{case_id}/map/{method}")
    def heat_map(case_id: str, method: str, label: str = "") -> Response:
        """S x S bytes, 0 cold to 255 hot; ``X-Map`` gives S and the class that it speaks for."""
        case = services.known(case_id)
        library = services.library
        if library is None or method not in library.methods or label not in ("", *library.classes):
            raise HTTPException(404)
        found = library.saliency(case, method, label)
        described = {"size": found.values.shape[0], "label": found.target_name, "empty": found.empty}
        # Class names may hold any letter, header fields may not: JSON escapes them.
        return Response(heat(found.values), media_type=_BYTES, headers={"X-Map": json.dumps(described)})

    @router.get("/case/{case_id}/outline")
    def outline(case_id: str) -> Response:
        """The expert's outline as polygons, in shares of width and height."""
        case = services.known(case_id)
        mask = services.library.image(case).mask if services.library else None
        return JSONResponse({"polygons": polygons(mask)})

    @router.get("/case/{case_id}/picture")
    def picture(case_id: str) -> Response:
        """The image with the likeliest class's map over it, for browsers without scripts."""
        case = services.known(case_id)
        if services.library is None:
            raise HTTPException(404)
        given = services.library.image(case)
        found = services.library.saliency(case, services.library.methods[0], "")
        return Response(overlay_picture(given.pixels, found.values, given.mask), media_type="image/jpeg")

    return router
