import json
import stat
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from foundry.cli import app
from foundry.qmd_commands import check_gguf, write_index
from publisher.registry import Publication, open_registry
from qmd_schema.errors import ArtifactError, ConfigError
from support.publishing import publisher_config

REVISION = "0123abcd" * 5
GGUF = "/models/m-0123abcd-Q8_0.gguf"


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The GGUF file of a registry that the cpu profile is made to name."""
    config = publisher_config(tmp_path)
    registry = open_registry(config)
    publication = Publication(
        repository=config.repository,
        revision=REVISION,
        parent=None,
        created="2026-01-01T00:00:00+00:00",
        repositories=[config.repository],
        gguf={"Q8_0": f"{config.name}-{REVISION[:8]}-Q8_0.gguf"},
        default_quantisation="Q8_0",
        verdict_id="verdict-1",
        provenance={},
    )
    with registry.staging(REVISION) as staged:
        (staged / config.name).mkdir()
        (staged / f"{config.name}-gguf").mkdir()
        (staged / f"{config.name}-gguf" / publication.gguf["Q8_0"]).write_bytes(b"GGUF and more")
        deployment = registry.commit(staged, publication)
    monkeypatch.setattr("foundry.qmd_commands.open_registry", lambda _: registry)
    monkeypatch.setenv("QMD_CONFIG_DIR", str(tmp_path / "qmd"))
    return deployment.gguf["Q8_0"]


@pytest.fixture(autouse=True)
def in_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


def test_install_prints_lines_that_name_the_deployed_file(deployed: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["qmd", "install"])
    assert yaml.safe_load(result.stdout) == {"models": {"generate": str(deployed)}}
    assert str(tmp_path / "qmd" / "index.yml") in " ".join(result.stderr.split())
    assert not (tmp_path / "qmd").exists()


def test_install_writes_the_config_qmd_reads_and_keeps_the_rest(deployed: Path, tmp_path: Path) -> None:
    path = tmp_path / "qmd" / "index.yml"
    path.parent.mkdir()
    path.write_text("# mine\ncollections: {}\n")
    report = json.loads(CliRunner().invoke(app, ["qmd", "install", "--write", "--json"]).stdout)
    assert path.read_text() == f"# mine\ncollections: {{}}\nmodels:\n  generate: {deployed}\n"
    assert report["written"] and report["revision"] == REVISION and REVISION[:8] in report["gguf"]
    assert Path(report["backup"]).read_text() == "# mine\ncollections: {}\n"


def test_install_writes_a_config_that_is_named(deployed: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "index.yml"
    result = CliRunner().invoke(app, ["qmd", "install", "--write", "--config", str(path)])
    assert result.exit_code == 0
    assert yaml.safe_load(path.read_text())["models"]["generate"] == str(deployed)
    assert [file.name for file in path.parent.iterdir()] == ["index.yml"]


def test_a_file_that_qmd_would_delete_is_not_installed(deployed: Path) -> None:
    deployed.chmod(0o644)
    deployed.write_bytes(b"<html>not found</html>")
    with pytest.raises(ArtifactError, match="QMD would delete it"):
        check_gguf(deployed)
    assert isinstance(CliRunner().invoke(app, ["qmd", "install", "--write"]).exception, ArtifactError)


def test_a_link_and_the_files_mode_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles.yml", tmp_path / "index.yml"
    real.write_text("collections: {}\n")
    real.chmod(0o600)
    link.symlink_to(real)
    write_index(link, GGUF)
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o600
    assert yaml.safe_load(real.read_text())["models"] == {"generate": GGUF}


def test_a_config_that_cannot_be_edited_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "index.yml"
    path.write_text("- not\n- a mapping\n")
    with pytest.raises(ConfigError, match="holds a list"):
        write_index(path, GGUF)
    assert path.read_text() == "- not\n- a mapping\n"
    assert [file.name for file in tmp_path.iterdir()] == ["index.yml"]
