"""Small parts of the gateway: settings, messages, rights, REST rules, files, the committed bootstrap."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from pydantic import ValidationError

from modelyard.api.governance.v1 import governance_service_pb2, identity_pb2
from modelyard.api.inference.v1 import route_pb2
from modelyard.api.oip.v2 import grpc_inference_pb2, rest_inference_pb2
from modelyard_gateway import envoy, rest
from modelyard_gateway.app import bootstrap_yaml
from modelyard_gateway.descriptors import public_oip
from modelyard_gateway.files import prepare_directory, write_atomic
from modelyard_gateway.messages import keys_from_proto, table_from_proto
from modelyard_gateway.permissions import allowed_principals
from modelyard_gateway.routes import CONTROL_PLANE
from modelyard_gateway.table import Limits, Route, RouteTable, Target
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant
from modelyard_kit.errors import InvalidField
from modelyard_kit.grants import Grants
from modelyard_kit.protos import chain_to_proto
from tests.unit.gateway.samples import CHAIN, settings

ROOT = Path(__file__).parents[3]
ALLOW, DENY = Effect.ALLOW, Effect.DENY


def grant(resource: str, privilege: Privilege = Privilege.EXECUTE, effect: Effect = ALLOW) -> ResourceGrant:
    return ResourceGrant(resource, privilege, effect)


USE = (grant("c1", Privilege.USE_CATALOG), grant("s1", Privilege.USE_SCHEMA))


def test_who_may_predict() -> None:
    table = RouteTable(1, (Route(CHAIN, (), 0, 0.0),))
    held = {
        "owner": USE,
        "granted": (*USE, grant("d1")),
        "inherits": (*USE, grant("c1")),
        "admin": (grant(SYSTEM_ID, Privilege.OWNERSHIP),),
        "denied": (*USE, grant("d1"), grant("s1", effect=DENY)),
        "cannot-reach": (grant("d1"),),
        "elsewhere": (*USE, grant("d2")),
        "reader": (*USE, grant("d1", Privilege.READ_METADATA)),
        "nothing": (),
    }
    grants = Grants()
    for name, given in held.items():
        grants.replace(name, name, given)
    grants.replace("disabled", "disabled", held["granted"], disabled=True)
    # The group may predict, itself and through the group around it; nobody lets a group in as such.
    grants.replace("around", "around", USE, is_group=True)
    grants.replace("group", "group", (grant("d1"),), groups=["around"], is_group=True)
    grants.replace("member", "member", (), groups=["group"])
    grants.replace("denied-member", "denied-member", (grant("c1", effect=DENY),), groups=["group"])
    assert allowed_principals(table, grants.holders()) == {
        "d1": ("admin", "granted", "inherits", "member", "owner")
    }


def test_a_table_is_parsed() -> None:
    message = route_pb2.RouteTable(version=4)
    route = message.routes.add(deployment=chain_to_proto(CHAIN), max_request_bytes=9)
    route.timeout.FromMilliseconds(1500)
    route.traffic_limits.requests_per_second = 5
    route.targets.add(group="g", model_version="prod.ml.iris/2", weight=2, addresses=["unix:/a"])
    parsed = table_from_proto(message)
    target = Target("g", "prod.ml.iris/2", 2, ("unix:/a",))
    assert parsed == RouteTable(4, (Route(CHAIN, (target,), 9, 1.5, limits=Limits(5)),))
    assert parsed.routes[0].name == "prod.ml.iris"


def test_incomplete_messages_are_refused() -> None:
    message = route_pb2.RouteTable(version=4)
    message.routes.add(deployment=chain_to_proto(CHAIN)).targets.add(weight=1)
    with pytest.raises(InvalidField, match="group"):
        table_from_proto(message)
    message.routes[0].targets[0].group = "g"
    message.routes[0].targets[0].addresses.append("nowhere")
    with pytest.raises(InvalidField, match="nowhere"):
        table_from_proto(message)
    del message.routes[0].targets[0].addresses[:]
    message.routes[0].traffic_limits.bandwidth_mbps = -1
    with pytest.raises(InvalidField, match="bandwidth_mbps"):
        table_from_proto(message)
    with pytest.raises(InvalidField, match="keys"):
        keys_from_proto(governance_service_pb2.GetJwksResponse(issuer="modelyard"))
    odd = governance_service_pb2.GetJwksResponse(keys=[identity_pb2.JsonWebKey(kid="k", alg="none")])
    with pytest.raises(InvalidField, match="ES256"):
        keys_from_proto(odd)


async def test_an_envoy_that_crashes_is_told_from_one_that_refuses(tmp_path: Path) -> None:
    crashing, refusing = tmp_path / "crashing", tmp_path / "refusing"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    refusing.write_text(
        "#!/bin/sh\necho '[2026-01-01 10:00:00.000][1][critical][main] no such filter'\nexit 1\n"
    )
    for program in (crashing, refusing):
        program.chmod(0o700)
    assert await envoy.validate(str(crashing), {}) == "envoy --mode validate was ended by SIGSEGV"
    assert await envoy.validate(str(refusing), {}) == "no such filter"


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValidationError, match="tls_certificate"):
        settings(listen="0.0.0.0:8080")
    with pytest.raises(ValidationError, match="absolute"):
        settings(envoy_directory=Path("envoy"))
    with pytest.raises(ValidationError, match="too long"):
        settings(envoy_directory=Path("/" + "x" * 120))
    with pytest.raises(ValidationError, match="catalog_address"):
        settings(catalog_address="")
    for origins in ("console.example.com", "https://a.example, https://b.example/page"):
        with pytest.raises(ValidationError, match="is not an origin"):
            settings(cors_origins=origins)
    for address in ("0.0.0.0:8081", "127.0.0.1:8080", "nowhere"):
        with pytest.raises(ValidationError, match=address):
            settings(private_listen=address)
    with pytest.raises(ValidationError, match="gateway_id"):
        settings(gateway_id="two words")  # inference would refuse it with every confirmation
    with pytest.raises(ValidationError, match="tls_client_ca"):
        settings(tls_client_ca="/ca")
    assert settings(listen="0.0.0.0:8080", tls_certificate="/c", tls_key="/k").listen == "0.0.0.0:8080"


def test_every_method_of_the_rest_service_has_a_rule() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(rest.descriptor_set())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    service = pool.FindServiceByName("modelyard.api.oip.v2.RestInferenceService")
    assert {method.name for method in service.methods} == rest.RULES.keys()
    file = next(item for item in files.file if item.name == rest_inference_pb2.DESCRIPTOR.name)
    infer = next(method for method in file.service[0].method if method.name == "Infer")
    rule = infer.options.Extensions[annotations_pb2.http]
    assert (rule.post, rule.body, rule.response_body) == ("/v2/models/{model_name}/infer", "body", "body")
    assert rule.additional_bindings[0].post == "/v2/models/{model_name}/versions/{model_version}/infer"


def test_every_method_of_the_control_plane_that_streams_no_requests_has_a_rule() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(rest.transcoded_set())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())  # complete, and in order
    for name, full_name in CONTROL_PLANE.items():
        (service,) = (
            service
            for file in files.file
            for service in file.service
            if f"{file.package}.{service.name}" == full_name
        )
        for method in service.method:
            rule = method.options.Extensions[annotations_pb2.http]
            assert rule.post == ("" if method.client_streaming else f"/v1/{name}/{method.name}")


def test_the_public_protocol_is_ours_under_another_package() -> None:
    public = public_oip()
    assert public.package == "inference"
    assert "modelyard" not in str(public)
    ours = [message.name for message in grpc_inference_pb2.DESCRIPTOR.message_types_by_name.values()]
    assert [message.name for message in public.message_type] == ours


def test_services_of_the_control_plane_exist() -> None:
    for name in CONTROL_PLANE.values():
        assert descriptor_pool.Default().FindServiceByName(name).full_name == name


def test_files_are_replaced_whole_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "envoy"
    folder.mkdir(mode=0o755)
    prepare_directory(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    write_atomic(folder / "a.json", "one")
    write_atomic(folder / "a.json", "two")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("a.json", "two")]
    assert (folder / "a.json").stat().st_mode & 0o077 == 0


def test_a_missing_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(envoy.EnvoyMissingError, match="MODELYARD_ENVOY_BINARY"):
        envoy.binary(str(tmp_path / "envoy"))
    assert os.access(envoy.binary(""), os.X_OK)


async def test_the_committed_bootstrap_is_fresh_and_valid() -> None:
    committed = (ROOT / "deploy" / "envoy" / "bootstrap.yaml").read_text(encoding="utf-8")
    made = bootstrap_yaml(settings(envoy_directory=Path("/run/modelyard/envoy")))
    assert committed == made, "render it again: see gateway/README.md"
