"""Every published limit, in one table that code, documents and tests read."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard_kit.errors import LimitExceeded


@dataclass(frozen=True)
class Limit:
    """One limit: what may be at most `maximum` units."""

    name: str
    maximum: int
    unit: str
    description: str


_TABLE = (
    Limit("description_length", 5_000, "characters", "description of any resource"),
    Limit("tags_per_resource", 100, "tags", "tags of a catalog, schema, model or version"),
    Limit("tag_key_length", 250, "characters", "key of a tag"),
    Limit("tag_value_length", 5_000, "characters", "value of a tag"),
    Limit("metrics_per_version", 1_000, "metrics", "metrics of a version"),
    Limit("metric_name_length", 250, "characters", "name of a metric"),
    Limit("metric_value_bytes", 65_536, "bytes", "a metric as JSON"),
    Limit("aliases_per_model", 1_000, "aliases", "aliases of a model"),
    Limit("signature_methods", 32, "methods", "methods of a signature"),
    Limit("signature_tensors", 10_000, "tensors", "inputs or outputs of a method"),
    Limit("tensor_name_length", 250, "characters", "name of a tensor of a signature"),
    Limit("tensor_rank", 32, "dimensions", "dimensions of a tensor of a signature"),
    Limit("metric_depth", 16, "levels", "nesting of a metric, of hyperparameters or of test results"),
    Limit("runtime_name_length", 63, "characters", "name of a runtime"),
    Limit(
        "requirements_bytes",
        2**20,
        "bytes",
        "requirements.txt of an artifact that an environment is built from",
    ),
    Limit("environment_bytes", 20 * 2**30, "bytes", "unpacked environment that an artifact brings"),
    Limit("provenance_packages", 2_000, "packages", "packages in a provenance"),
    Limit("provenance_field_length", 2_000, "characters", "a text field of a provenance"),
    Limit("datasets_per_version", 1_000, "data sets", "data sets in a provenance"),
    Limit("metadata_bytes", 32_000, "bytes", "metadata of a version as JSON"),
    Limit("metadata_key_length", 255, "characters", "key of a custom fact in metadata"),
    Limit("metadata_value_length", 16_000, "characters", "value of a custom fact in metadata"),
    Limit("metadata_description_length", 255, "characters", "description of a custom fact in metadata"),
    Limit("lineage_edges_per_call", 1_000, "edges", "edges of lineage recorded in one call"),
    Limit("lineage_name_length", 2_000, "characters", "a text field of a node of lineage or of a data set"),
    Limit(
        "lineage_relation_length", 63, "characters", "relation of an edge of lineage, or role of a data set"
    ),
    Limit("lineage_edges_per_answer", 1_000, "edges", "edges of lineage in one answer; more are left out"),
    Limit("lineage_edges_per_walk", 20_000, "edges", "edges of lineage that are read for one answer"),
    Limit("lineage_depth", 20, "edges", "distance that one question about lineage reaches; more means this"),
    Limit("lineage_ancestry_edges", 100_000, "edges", "edges of lineage upstream of a node"),
    Limit(
        "watches_per_principal", 100, "watches", "watches of one principal that run at once, in one process"
    ),
    Limit("watches_per_process", 1_000, "watches", "watches of everybody that run at once, in one process"),
    Limit("request_id_length", 64, "characters", "request_id of a create"),
    Limit("files_per_artifact", 100_000, "files", "files of an artifact"),
    Limit("path_bytes", 1_024, "bytes", "path of a file in an artifact"),
    Limit("blob_bytes", 5 * 2**40, "bytes", "one file of an artifact"),
    Limit("open_uploads_per_principal", 100, "uploads", "uploads of one principal that are not committed"),
    Limit("chunk_bytes", 2**20, "bytes", "one chunk of an upload or download"),
    Limit("signatures_per_artifact", 20, "signatures", "signatures of an artifact"),
    Limit("signature_bytes", 10 * 2**20, "bytes", "signature of an artifact"),
    Limit("targets_per_deployment", 16, "targets", "traffic targets of a deployment"),
    Limit("replicas_per_target", 64, "replicas", "replicas of a traffic target"),
    Limit("cpus_per_replica", 1_024, "cores", "cores that a replica may use"),
    Limit("memory_bytes_per_replica", 2**50, "bytes", "memory that a replica may use"),
    Limit("instances_per_replica", 2_048, "copies", "copies of the model in a replica"),
    Limit("rows_per_batch", 65_536, "rows", "rows of one run of a model"),
    Limit("rows_waiting_per_replica", 1_000_000, "rows", "rows that may wait in a replica"),
    Limit(
        "batch_delay_microseconds",
        1_000_000,
        "microseconds",
        "time that an idle replica waits for company for a prediction",
    ),
    Limit("environment_variables", 100, "variables", "variables of the environment of replicas"),
    Limit(
        "environment_variables_bytes",
        32_768,
        "bytes",
        "names and values of the variables of the environment of replicas",
    ),
    Limit("environment_requirements", 1_000, "lines", "requirements of the environment of a deployment"),
    Limit(
        "environment_requirements_bytes",
        65_536,
        "bytes",
        "requirements of the environment of a deployment, together",
    ),
    Limit("warm_up_requests", 100, "requests", "requests in the warmup.jsonl of an artifact"),
    Limit("warm_up_bytes", 16 * 2**20, "bytes", "warmup.jsonl of an artifact"),
    Limit("rollout_steps", 20, "steps", "steps of a rollout"),
    Limit(
        "revisions_per_deployment",
        1_000,
        "revisions",
        "revisions in the history of a deployment; older ones are forgotten",
    ),
    Limit("replica_log_bytes", 2 * 2**20, "bytes", "one log file of a replica; a full one is put aside"),
    Limit("replica_log_files", 4, "files", "log files of a replica; the oldest is forgotten"),
    Limit(
        "predict_log_values",
        200,
        "values",
        "values of one tensor that the predict log holds; more are left out",
    ),
    Limit("log_line_bytes", 16_384, "bytes", "line of a replica's log; longer ones are cut"),
    Limit(
        "log_lines_per_read",
        10_000,
        "lines",
        "lines from before that one read of logs begins with; more means this",
    ),
    Limit("change_reason_length", 1_024, "characters", "reason of a change of a deployment"),
    Limit("tokens_per_principal", 1_000, "tokens", "API tokens of a principal"),
    Limit("members_per_group", 10_000, "members", "direct members of a group"),
    Limit("groups_per_principal", 100, "groups", "groups that a principal or group is directly in"),
    Limit("issuers", 20, "issuers", "external issuers of tokens"),
    Limit("id_token_length", 16_384, "characters", "token of an external issuer"),
    Limit("groups_per_token", 1_000, "groups", "groups that a token of an external issuer names"),
    Limit("signing_keys", 10, "keys", "signing keys that are published at once"),
    Limit("comment_length", 1_024, "characters", "comment of a review"),
    Limit("protected_aliases", 100, "aliases", "protected aliases of a policy"),
    Limit("required_approvals", 20, "approvals", "approvals that a policy can require"),
    Limit("conditions_per_policy", 50, "conditions", "conditions of a policy"),
    Limit("condition_length", 2_000, "characters", "expression of a condition"),
    Limit("gate_overrides", 20, "overrides", "overrides of gates of one version that count at once"),
    Limit("trust_roots_per_resource", 100, "trust roots", "trust roots that stand on one resource"),
    Limit("trust_root_bytes", 65_536, "bytes", "PEM of a trust root"),
    Limit("webhooks", 100, "webhooks", "webhooks of an installation"),
    Limit("webhook_types", 100, "types", "types of events of a webhook"),
    Limit(
        "webhook_backlog",
        10_000,
        "deliveries",
        "deliveries in the queue of a webhook; what is more waits in the audit chain",
    ),
    Limit("shares", 1_000, "shares", "shares of an installation"),
    Limit("members_per_share", 100, "members", "models and schemas of a share"),
    Limit("exporters_per_share", 100, "principals", "principals and groups that may export a share"),
    Limit("bundle_manifest_bytes", 2**20, "bytes", "manifest of a bundle"),
    Limit("card_length", 100_000, "characters", "model card as JSON"),
    Limit("card_revisions", 1_000, "revisions", "revisions of the model card of a version"),
    Limit(
        "denials_per_principal",
        50,
        "attempts",
        "different refused attempts of one principal that the audit chain tells apart, in a minute",
    ),
    Limit(
        "denials_per_minute",
        1_000,
        "attempts",
        "different refused attempts that one process tells the audit chain of, in a minute",
    ),
    Limit("filter_length", 8_192, "characters", "filter of a list"),
    Limit("filter_terms", 100, "comparisons", "comparisons of a filter"),
    Limit("filter_depth", 32, "levels", "parentheses and NOTs of a filter, one inside the other"),
    Limit("order_by_length", 1_024, "characters", "order_by of a list"),
    Limit("order_by_fields", 8, "fields", "fields of an order_by"),
)

LIMITS = {limit.name: limit for limit in _TABLE}


def check(name: str, actual: int) -> None:
    """Refuse `actual` if it is over the limit `name`.

    Raises:
        LimitExceeded: it is over.
    """
    limit = LIMITS[name]
    if actual > limit.maximum:
        what = f"{limit.description}, {limit.unit}"
        raise LimitExceeded(name, maximum=limit.maximum, actual=actual, what=what)
