"""The list of cases, one case, and what reviewers say of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from fedlens.viewer.case import CaseQuery, Review, Verdict
from fedlens.viewer.case_images import judged
from fedlens.viewer.case_view import bars, headline, line, short_time, verdict_text
from fedlens.viewer.lists import ADVICE, LONGEST_TEXT, ORDERS, ORIGINS, REVIEWED, CaseList, Searches
from fedlens.viewer.pages import render
from fedlens.viewer.services import Services

_LONGEST_NOTE = 2000


def case_router(services: Services) -> APIRouter:
    """Pages about cases."""
    router = APIRouter()
    searches = Searches()
    _list_routes(router, services, searches)
    _case_routes(router, services, searches)
    _review_routes(router, services, searches)
    return router


def _list_routes(router: APIRouter, services: Services, searches: Searches) -> None:
    @router.get("/")
    def cases(request: Request) -> Response:
        """One page of the list."""
        shown = CaseList.asked(request.query_params, searches, request.state.reviewer)
        services.audit.record(request.state.reviewer, "list")
        found = services.store.page(shown.query, services.settings.per_page)
        return render(
            request,
            "cases.html.j2",
            shown=shown,
            found=found,
            lines=[line(row) for row in found.rows],
            verdict=verdict_text,
            label_choices=[(label, label) for label in services.store.labels()],
            network=services.library is not None,
            note=services.library.note if services.library else "",
            choices={"advice": ADVICE, "origin": ORIGINS, "reviewed": REVIEWED, "order": ORDERS},
            longest=LONGEST_TEXT,
            largest_upload=services.settings.largest_upload,
        )

    @router.post("/search")
    def search(
        request: Request,
        text: Annotated[str, Form()] = "",
        advice: Annotated[str, Form()] = "",
        label: Annotated[str, Form()] = "",
        origin: Annotated[str, Form()] = "",
        reviewed: Annotated[str, Form()] = "",
        order: Annotated[str, Form()] = "",
    ) -> Response:
        """On to the list that a form asks for."""
        reviewer = request.state.reviewer
        asked = {
            "search": searches.keep(reviewer, text),
            "advice": advice,
            "label": label,
            "origin": origin,
            "reviewed": reviewed,
            "order": order,
        }
        return RedirectResponse("/" + CaseList.asked(asked, searches, reviewer).parameters(), 303)

    @router.get("/waiting")
    def waiting() -> Response:
        """How many cases the network has not judged yet."""
        return JSONResponse({"waiting": services.store.page(CaseQuery(), 1).waiting})


def _case_routes(router: APIRouter, services: Services, searches: Searches) -> None:
    @router.get("/case/{case_id}")
    def one(request: Request, case_id: str) -> Response:
        """The case page."""
        case = services.known(case_id)
        services.audit.record(request.state.reviewer, "view case", case_id)
        shown = CaseList.asked(request.query_params, searches, request.state.reviewer)
        before, after = services.store.around(case_id, shown.query)
        prediction = judged(services, case)
        library = services.library
        return render(
            request,
            "case.html.j2",
            case=case,
            prediction=prediction,
            said=headline(prediction),
            bars=bars(prediction),
            shown=shown,
            before=before,
            after=after,
            reviews=services.store.reviews(case_id),
            time=short_time,
            verdict=verdict_text,
            classes=library.classes if library else (),
            methods=library.methods if library else (),
            calibrated=library.calibrated if library else True,
            note=library.note if library else "",
            longest=_LONGEST_NOTE,
            largest_upload=services.settings.largest_upload,
            origins=ORIGINS | {"reference": "Study, confirmed"},
        )

    @router.get("/case/{case_id}/neighbours")
    def neighbours(request: Request, case_id: str, part: bool = False) -> Response:
        """Nearest confirmed cases: a part of the case page, or a page of its own without scripts."""
        case = services.known(case_id)
        found = services.library.neighbours(case) if services.library else ()
        template = "neighbours_part.html.j2" if part else "neighbours.html.j2"
        return render(request, template, case=case, neighbours=found)


def _review_routes(router: APIRouter, services: Services, searches: Searches) -> None:
    @router.post("/case/{case_id}/review")
    def review(
        request: Request,
        case_id: str,
        verdict: Annotated[Verdict, Form()],
        label: Annotated[str, Form()] = "",
        note: Annotated[str, Form(max_length=_LONGEST_NOTE)] = "",
        then: Annotated[str, Form()] = "",
    ) -> Response:
        """Keep a review, and go back to the case or on to the next."""
        case = services.known(case_id)
        reviewer = request.state.reviewer
        if label and (services.library is None or label not in services.library.classes):
            raise HTTPException(422, "The class is none of this network's.")
        likeliest = case.prediction.likeliest if case.prediction else None
        if verdict == "agree":
            label = likeliest[0] if likeliest else ""
        shown = CaseList.asked(request.query_params, searches, reviewer)
        # Before it is kept: a reviewed case may leave the list.
        _, after = services.store.around(case_id, shown.query)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        services.store.review(Review(case_id, reviewer, verdict, label, note.strip(), now))
        services.audit.record(reviewer, "review", case_id, verdict)
        if then == "next" and after:
            return RedirectResponse(f"/case/{after}{shown.parameters()}", 303)
        return RedirectResponse(f"/case/{case_id}{shown.parameters()}#reviews", 303)

    @router.get("/reviews.csv")
    def exported(request: Request) -> Response:
        """All reviews."""
        services.audit.record(request.state.reviewer, "export reviews")
        return Response(
            services.store.reviews_csv(),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="reviews.csv"'},
        )
