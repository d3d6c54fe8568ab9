"""A run up to the graph, which is the one step of it that is sent: `python graph_alone.py EXPERIMENT ARTIFACTS`."""

import sys

from prefect import flow

from flows.display import display, shown
from flows.elsewhere import runner_for
from flows.pipeline import annotate_action_units, link_neighbours, prepare_images
from flows.step_task import Maker
from flows.study import open_study


@flow(name="graph-alone")
def graph_alone(experiment: str, artifacts: str) -> None:
    study = open_study(experiment, None, None, None, (), artifacts)
    with runner_for(study) as runner:
        make = Maker(study, runner, display())
        dataset = prepare_images(make)
        link_neighbours(make, dataset, annotate_action_units(make, dataset))


if __name__ == "__main__":
    with shown():
        graph_alone(sys.argv[1], sys.argv[2])
