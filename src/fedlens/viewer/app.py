"""The viewer's web application."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from fedlens.errors import FedLensError, UnreadableImageError
from fedlens.viewer.case_routes import case_router
from fedlens.viewer.guard import Guard
from fedlens.viewer.image_routes import image_router
from fedlens.viewer.login import login_router
from fedlens.viewer.pages import STATIC
from fedlens.viewer.problems import problem
from fedlens.viewer.services import Services
from fedlens.viewer.study_routes import study_router
from fedlens.viewer.uploads import upload_router

__all__ = ["Services", "create_app"]

_UNKNOWN = "There is no such page or case."


def create_app(services: Services) -> FastAPI:
    """All pages behind the guard."""
    app = FastAPI(title="FedLens", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC), "static")
    for router in (case_router(services), image_router(services), upload_router(services)):
        app.include_router(router)
    app.include_router(study_router(services.run, services.audit))
    _answer_errors(app)
    guard = Guard.install(app, services.settings, services.accounts, services.audit)
    app.include_router(login_router(guard))
    return app


def _answer_errors(app: FastAPI) -> None:
    """Errors as pages for people and as JSON for scripts, without a word from the request in them."""

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        what = _UNKNOWN if error.status_code == 404 else error.detail
        return problem(request, error.status_code, what)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        return problem(request, 422, "The form is not filled in as it should be.")

    @app.exception_handler(UnreadableImageError)
    def unreadable(request: Request, error: UnreadableImageError) -> Response:
        # Without the file: its folders are nobody's business.
        return problem(request, 422, f"The image cannot be read: {error.reason}.")

    @app.exception_handler(FedLensError)
    def failed(request: Request, error: FedLensError) -> Response:
        return problem(request, 422, error.what, error.why, error.fix)
