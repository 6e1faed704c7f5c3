"""What the processes of a suite are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import modelyard
from modelyard_artifact.app import ArtifactSettings
from modelyard_gateway.settings import GatewaySettings
from modelyard_governance.app import GovernanceSettings
from modelyard_inference.app import InferenceSettings
from modelyard_suite import plan
from modelyard_suite.__main__ import options_of
from modelyard_suite.home import Home
from modelyard_suite.suite import arguments_of

SETTINGS = (ArtifactSettings, GatewaySettings, GovernanceSettings, InferenceSettings)
GUIDE = Path(__file__).parents[3] / "docs" / "deploy.md"


@pytest.mark.parametrize(
    ("port", "listens"), [(0, [""] * 5), (9400, [f"127.0.0.1:{9400 + n}" for n in range(5)])]
)
def test_services_and_the_gateway_can_be_scraped_each_on_its_port(
    tmp_path: Path, port: int, listens: list[str]
) -> None:
    _, services, (agent, _) = plan.stages(Home(tmp_path), plan.Options(metrics_port=port))
    assert [service.name for service in services] == ["governance", "catalog", "artifact", "inference"]
    scraped = [*services, agent]
    assert [process.environment["MODELYARD_METRICS_LISTEN"] for process in scraped] == listens
    told = plan.metrics_addresses(plan.Options(metrics_port=port))
    assert list(told.values()) == [listen for listen in listens if listen]


def test_settings_of_the_user_reach_every_process_but_for_those_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"MODELYARD_CORS_ORIGINS": "https://a.example", "MODELYARD_PRIVATE_LISTEN": "127.0.0.1:8081"}
    for name, value in {**given, "MODELYARD_LISTEN": "127.0.0.1:1", "MODELYARD_TLS_KEY": "key.pem"}.items():
        monkeypatch.setenv(name, value)
    _, services, gateway = plan.stages(Home(tmp_path), plan.Options(listen="127.0.0.1:8090"))
    for process in (*services, *gateway):
        assert given.items() <= process.environment.items()
        assert process.environment["MODELYARD_LISTEN"] != "127.0.0.1:1"
        assert "MODELYARD_TLS_KEY" not in process.environment
    assert plan.ignored() == ["MODELYARD_LISTEN", "MODELYARD_TLS_KEY"]


def test_what_the_command_line_reads_is_not_told_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(modelyard.__file__).parent.rglob("*.py")]
    read = {name for text in sources for name in re.findall(r"MODELYARD_[A-Z_]+", text)} - {"MODELYARD_"}
    assert "MODELYARD_CLIENT_KEY" in read
    for name in read:
        monkeypatch.setenv(name, "given")
    assert plan.ignored() == []


def test_what_a_suite_takes_is_a_setting_and_is_documented() -> None:
    known = {name for kind in SETTINGS for name in kind.model_fields}
    assert {name.lower() for name in plan.TAKEN} <= known
    guide = GUIDE.read_text(encoding="utf-8")
    assert [name for name in plan.TAKEN if f"`{name}`" not in guide.split("## Settings")[1]] == []


def test_a_supervisor_in_the_background_gets_every_option() -> None:
    extra = {"build_environments": "true", "s3_endpoint": "http://127.0.0.1:9000/?a=b"}
    options = plan.Options(listen="127.0.0.1:8081", metrics_port=9100, extra=extra)
    assert options_of(arguments_of(Home(Path("/home")), options)) == options
    assert options_of(arguments_of(Home(Path("/home")), plan.Options())) == plan.Options()


def test_an_extra_setting_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of(["--home", "/home", "--extra", "build_environments"])
    assert "'build_environments' is not NAME=VALUE" in capsys.readouterr().err
