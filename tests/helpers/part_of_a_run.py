"""A run that ends early: `python part_of_a_run.py graph|generators EXPERIMENT ARTIFACTS SETTING…`."""

import sys

from prefect import flow

from flows.display import display, shown
from flows.elsewhere import runner_for
from flows.pipeline import annotate_action_units, link_neighbours, prepare_images, train_ldg, train_ldg_aus
from flows.step_task import Maker
from flows.study import open_study


@flow(name="part-of-a-run")
def part_of_a_run(until: str, experiment: str, artifacts: str, settings: list[str]) -> None:
    study = open_study(experiment, None, None, None, settings, artifacts)
    with runner_for(study) as runner:
        make = Maker(study, runner, display())
        dataset = prepare_images(make)
        graph = link_neighbours(make, dataset, annotate_action_units(make, dataset))
        if until == "generators":
            generators = [
                future
                for seed in study.seeds
                for future in (
                    train_ldg.submit(make, dataset, seed=seed),
                    train_ldg_aus.submit(make, dataset, graph, seed=seed),
                )
            ]
            for generator in generators:
                generator.result()


if __name__ == "__main__":
    with shown():
        part_of_a_run(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
