"""Odd inputs, and what each consumer makes of them; all inputs that are tested go through each consumer once."""

import pytest

from tests.support.oddities import consumers, lists, structured_lists, trees
from tests.support.oddities.folder import ODD, PLAIN, write_folder, write_lists, write_trees
from tests.support.oddities.inputs import TRAINING
from tests.support.run_folders import write_task_runs


@pytest.fixture(scope="session")
def odd_folder(request, tmp_path_factory):
    """Paths by the inputs' names: of the plain recording, and of the inputs that tests of this session ask for."""
    wanted = {
        value.name
        for item in request.session.items
        if hasattr(item, "callspec")
        for value in item.callspec.params.values()
        if hasattr(value, "likeness")
    }
    chosen = [odd for odd in ODD if odd.name in wanted]
    return write_folder(tmp_path_factory.mktemp("inputs"), chosen)


@pytest.fixture(scope="session")
def outcome(request, odd_folder, tmp_path_factory):
    """``outcome(consumer)`` gives what a consumer made of each input, by the inputs' names; see :class:`Found`."""
    folder, made = tmp_path_factory.mktemp("consumers"), {}

    def of(consumer):
        if consumer not in made:
            made[consumer] = None
            made[consumer] = use(consumer)
        assert made[consumer] is not None, f"{consumer} did not end well in an earlier test"
        return made[consumer]

    def use(consumer):
        if consumer == TRAINING:
            return consumers.through_training(odd_folder, folder / consumer)
        runs = request.getfixturevalue("runs")
        return consumers.through_command(consumer, odd_folder, runs, folder / consumer)

    return of


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Run folders of all tasks."""
    return write_task_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def odd_lists(tmp_path_factory):
    """Odd lists by their names."""
    return write_lists(tmp_path_factory.mktemp("lists"), (*lists.ODD, *structured_lists.ODD))


@pytest.fixture(scope="session")
def odd_trees(tmp_path_factory):
    """Odd folders by their names."""
    return write_trees(tmp_path_factory.mktemp("trees"), trees.ODD)


@pytest.fixture(scope="session")
def plain_name():
    """Name of the plain recording among the inputs."""
    return PLAIN.name
