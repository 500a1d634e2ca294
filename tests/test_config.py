import pytest

from sapwood import config
from sapwood.errors import ConfigurationError


def test_what_is_said_on_the_command_line_goes_first(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.sapwood]\napp = "c:app"\nconcurrency = 3\n')
    settings = config.read(tmp_path, {"SAPWOOD_APP": "b:app"})
    assert settings.get("app", "a:app") == config.Setting("a:app", "--app")
    assert settings.get("app") == config.Setting("b:app", "SAPWOOD_APP")
    assert settings.get("concurrency") == config.Setting(3, f"{tmp_path / 'pyproject.toml'} [tool.sapwood]")
    assert settings.get("poll", default=0.5) == config.Setting(0.5, "default")


def test_the_nearest_pyproject_upward_is_read(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.sapwood]\napp = "jobs:app"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert config.read(below, {}).get("app").value == "jobs:app"


def test_the_environment_speaks_in_words(tmp_path):
    settings = config.read(tmp_path, {"SAPWOOD_CONCURRENCY": "7", "SAPWOOD_QUEUES": "a, b", "SAPWOOD_POLL": "0.1"})
    assert settings.get("concurrency").value == 7
    assert settings.get("queues").value == ["a", "b"]
    assert settings.get("poll").value == 0.1


def test_an_empty_variable_says_nothing(tmp_path):
    assert config.read(tmp_path, {"SAPWOOD_APP": " "}).get("app").value is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[tool.sapwood\n", "cannot read"),
        ('[tool.sapwood]\nap = "x"\n', '"app"'),
        ("[tool]\nsapwood = 1\n", "not a table"),
    ],
)
def test_a_pyproject_that_makes_no_sense_is_an_error(tmp_path, text, expected):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=expected):
        config.read(tmp_path, {})


def test_a_value_of_the_wrong_kind_is_an_error_that_says_where_it_came_from(tmp_path):
    with pytest.raises(ConfigurationError, match="SAPWOOD_CONCURRENCY"):
        config.read(tmp_path, {"SAPWOOD_CONCURRENCY": "many"}).get("concurrency")
