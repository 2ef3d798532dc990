from __future__ import annotations

import pytest

from audit.planting import Image, sound_project
from fixtures.gitrepo import GitRepo
from fixtures.project import Project


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Image]:
    """A project, and the sound image that it made. Tests plant on the image and leave the project alone."""
    root = tmp_path_factory.mktemp("audited")
    project = Project(root / "project", root / "store")
    return project, sound_project(project, GitRepo(project.root / "webui.git"))


@pytest.fixture
def sound(made: tuple[Project, Image]) -> Image:
    """An image that a start has nothing to do in: every type of model, webui 1.10.1 in /srv/webui."""
    return made[1]
