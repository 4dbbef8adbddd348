"""A client of FLARE's stock FedAvg whose training takes no time; run by FLARE, from deployment.py's job."""

import sys
import time

import nvflare.client as flare
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

if __name__ == "__main__":
    flare.init()
    while flare.is_running():
        model = flare.receive()
        with open(f"{sys.argv[1]}/{flare.get_site_name()}", "a") as stream:  # noqa: PTH123
            stream.write(f"{time.time()}\n")
        params = {name: array + 1e-3 for name, array in model.params.items()}
        meta = {"NUM_STEPS_CURRENT_ROUND": 1}
        flare.send(FLModel(params_type=ParamsType.FULL, params=params, metrics={"accuracy": 0.5}, meta=meta))
