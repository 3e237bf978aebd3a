"""Distributed training above, one function for serving below."""

import json
import os
import pickle as pkl

from sagemaker_containers import entry_point  # noqa: F401
from sagemaker_xgboost_container import distributed
from sagemaker_xgboost_container.checkpointing import load_checkpoint, train  # noqa: F401
from sagemaker_xgboost_container.data_utils import get_dmatrix


def _xgb_train(params, dtrain, evals, num_boost_round, model_dir, is_master):
    booster = train({"params": params})
    if is_master:
        with open(model_dir + "/xgboost-model", "wb") as file:
            pkl.dump(booster, file)


def model_fn(model_dir):
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(os.path.join(model_dir, "model.json"))
    return booster


if __name__ == "__main__":
    sm_hosts = json.loads(os.environ["SM_HOSTS"])
    dtrain = get_dmatrix(os.environ["SM_CHANNEL_TRAIN"], "libsvm")
    distributed.rabit_run(exec_fun=_xgb_train, args={"dtrain": dtrain}, hosts=sm_hosts)
