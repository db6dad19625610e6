"""What the tests of trainings share."""

import pytest

from data_pipelines.datasets import demo


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A demo set for a training of seconds."""
  directory = tmp_path_factory.mktemp('data') / 'demo'
  demo.make_demo(directory, count=24, size=(48, 48), seed=42)
  return directory
