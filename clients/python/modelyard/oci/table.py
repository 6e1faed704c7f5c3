"""The table of OCI's introspection tests: ids, categories, descriptions and messages are OCI's own, in OCI's order."""

from __future__ import annotations

from dataclasses import dataclass

SCORE = "score.py"
RUNTIME = "runtime.yaml"
MANDATORY_FILES = "Mandatory Files Check"


@dataclass(frozen=True)
class Test:
    """A test of the table: what OCI calls it, and how its message begins."""

    __test__ = False  # the name is the domain's; pytest shall not collect it

    category: str
    description: str
    message: str


_FILE = 'Check that the file "{}" exists and is in the top level directory of the artifact directory'
_MISSING = "The file '{}' is missing."
_FIELD = "Check that field MODEL_DEPLOYMENT.{}"
_KEY = "In runtime.yaml, the key MODEL_DEPLOYMENT.{}"

TABLE: dict[str, Test] = {
    "score_py": Test(MANDATORY_FILES, _FILE.format(SCORE), _MISSING.format(SCORE)),
    "runtime_yaml": Test(MANDATORY_FILES, _FILE.format(RUNTIME), _MISSING.format(RUNTIME)),
    "score_syntax": Test("score.py", "Check for Python syntax errors", "There is Syntax error in score.py:"),
    "score_load_model": Test(
        "score.py", "Check that load_model() is defined", "Function load_model is not present in score.py."
    ),
    "score_predict": Test(
        "score.py", "Check that predict() is defined", "Function predict is not present in score.py."
    ),
    "score_predict_data": Test(
        "score.py",
        'Check that the only required argument for predict() is named "data"',
        "The predict function in score.py must have a formal argument named 'data'.",
    ),
    "score_predict_arg": Test(
        "score.py",
        "Check that all other arguments in predict() are optional and have default values",
        "All formal arguments in the predict function must have default values, except that 'data' argument.",
    ),
    "runtime_version": Test(
        "runtime.yaml",
        "Check that field MODEL_ARTIFACT_VERSION is set to 3.0",
        "In runtime.yaml, the key MODEL_ARTIFACT_VERSION must be set to 3.0.",
    ),
    "runtime_env_python": Test(
        "conda_env",
        _FIELD.format("INFERENCE_PYTHON_VERSION is set to a value of 3.6 or higher"),
        _KEY.format("INFERENCE_PYTHON_VERSION must be set to a value of 3.6 or higher."),
    ),
    "runtime_env_path": Test(
        "conda_env",
        _FIELD.format("INFERENCE_ENV_PATH is set"),
        _KEY.format("INFERENCE_ENV_PATH must have a value."),
    ),
    "runtime_path_exist": Test(
        "conda_env",
        "Check that the file path in MODEL_DEPLOYMENT.INFERENCE_ENV_PATH is correct.",
        _KEY.format("INFERENCE_ENV_PATH does not exist."),
    ),
    "runtime_env_type": Test(
        "conda_env",
        _FIELD.format("INFERENCE_ENV_TYPE is set to published or data_science"),
        _KEY.format("INFERENCE_ENV_TYPE must be set to published or data_science."),
    ),
    "runtime_env_slug": Test(
        "conda_env",
        _FIELD.format("INFERENCE_ENV_SLUG is set"),
        _KEY.format("INFERENCE_ENV_SLUG must have a value."),
    ),
    "runtime_slug_exist": Test(
        "conda_env",
        "Check that the slug in MODEL_DEPLOYMENT.INFERENCE_ENV_SLUG is correct.",
        "In runtime.yaml, the value of the key INFERENCE_ENV_SLUG doesn't exist.",
    ),
}
