"""`vqa describe --schema`: a JSON Schema (draft 2020-12) of experiment and ablation files, for editors.

It is made of what the reader itself goes by: the sections' models, and the constructors' typed signatures. What only
the reader can see, such as a width that must divide another, it does not say.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vqa.data.formats import FORMATS
from vqa.experiment import Experiment
from vqa.experiment.keys import DESCRIPTIONS
from vqa.files import STANDARD_OUTPUT, write_json
from vqa.models import table_of
from vqa.models.explain import explain
from vqa.models.model import SIZES
from vqa.models.options import LARGEST_FLOAT, Bounds, Inner, inner_keys
from vqa.parts import entry_names
from vqa.progress import console
from vqa.studies.grid import AblationFile

CODE = r"^(?!hf:|detector:|import:|fisher:)[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"  # a class from outside the package
REQUIRED = {"": ["name", "data", "features", "fusion"], "data": ["format", "root"]}  # of a file that extends no other
Schema = dict[str, Any]


def write_schema(to: Path) -> None:
    """Write the schema, with the parts that installed packages bring, and say how an editor finds it."""
    write_json(to, make_schema(installed=True))
    if to != STANDARD_OUTPUT:
        console.print(f"{to}: the first line of a file in the same folder: # yaml-language-server: $schema={to.name}")


def make_schema(*, installed: bool = False) -> Schema:
    """The schema of a file: of an ablation where it names a base, else of an experiment.

    Args:
        installed: also name the parts that installed packages bring as entry points.
    """
    definitions: dict[str, Schema] = {}
    for model in (Experiment, AblationFile):
        made = _untitled(model.model_json_schema(by_alias=True))
        definitions |= made.pop("$defs", {})
        definitions[model.__name__] = made
    experiment = definitions["Experiment"]
    for kind in SIZES:
        definitions[kind] = _part(kind, entry_names(kind) if installed else [])
        experiment["properties"][kind] = {"$ref": f"#/$defs/{kind}"}
    definitions["inner_fusion"] = _inner_fusion()
    _describe(experiment, definitions)
    formats = sorted({*FORMATS, *(entry_names("data format") if installed else [])})
    data = definitions["DataSection"]
    data["properties"]["format"] |= {"anyOf": [{"enum": formats}, {"pattern": CODE}]}
    cache = definitions["FeaturesSection"]["properties"]["cache"]
    cache["anyOf"] = [{"type": "string"}, {"type": "array", "items": cache.pop("items")}]
    del cache["type"]
    experiment["properties"] |= {
        "extends": {"type": "string", "description": "Another experiment, of which this file changes single keys."},
        "recorded": {"type": "object", "description": "Facts of a run, in its own experiment.yaml."},
    }
    _require_unless_extending(experiment, data)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Experiments and ablations of vqa",
        "if": {"type": "object", "required": ["base"]},
        "then": {"$ref": "#/$defs/AblationFile"},
        "else": {"$ref": "#/$defs/Experiment"},
        "$defs": definitions,
    }


def _untitled(value: Any) -> Any:
    """Without pydantic's titles, which repeat the keys."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if key != "title" or not isinstance(one, str)}
        return {key: _untitled(one) for key, one in kept.items()}
    return [_untitled(one) for one in value] if isinstance(value, list) else value


def _describe(section: Schema, definitions: Mapping[str, Schema], where: str = "") -> None:
    """Give every key its sentence."""
    for key, schema in section["properties"].items():
        inner = definitions.get(schema.get("$ref", "").rpartition("/")[2])
        if inner is not None and "properties" in inner:
            _describe(inner, definitions, f"{where}{key}.")
        elif f"{where}{key}" in DESCRIPTIONS:
            schema["description"] = DESCRIPTIONS[f"{where}{key}"]


def _require_unless_extending(experiment: Schema, data: Schema) -> None:
    """What a file must say itself where there is no other that says it: some keys, and the names of its parts."""
    data.pop("required")
    experiment.pop("required")
    named = {kind: {"anyOf": [{"type": "string"}, {"required": ["name"]}]} for kind in SIZES if kind != "classifier"}
    data_named = {"required": REQUIRED["data"]}
    cached = {"required": ["cache"], "properties": {"cache": {"minItems": 1}}}
    features = {"anyOf": [cached, {"properties": {"tune": {"const": True}}, "required": ["tune"]}]}
    whole: Schema = {"required": REQUIRED[""], "properties": {"data": data_named, "features": features, **named}}
    experiment |= {"if": {"required": ["extends"]}, "then": {}, "else": whole}


def _part(kind: str, others: list[str]) -> Schema:
    """A section that names a class: its name alone, or its name and options; without a name only options."""
    table = dict(table_of(kind, {}))
    pretrained = {name: table.pop(name) for name in list(table) if name.startswith("hf:")}
    names = [*table, *others]
    outside = {"type": "string", "pattern": CODE}
    anything: Schema = {"type": "object", "properties": {"name": outside}, "required": ["name"]}
    entries: list[Schema] = [_options(kind, part, {"const": name}) for name, part in table.items()]
    entries += [_options(kind, part, {"type": "string", "pattern": "^hf:.+"}) for part in pretrained.values()]
    entries += [{"type": "object", "properties": {"name": {"enum": others}}, "required": ["name"]}] if others else []
    if kind == "classifier":
        return _options(kind, next(iter(table.values())), {"enum": names}, named=False)
    nameless: Schema = {"type": "object", "not": {"required": ["name"]}}  # of a file that extends another
    return {
        "description": DESCRIPTIONS[kind],
        "anyOf": [
            {"enum": names},
            outside, *([{"type": "string", "pattern": "^hf:.+"}] if pretrained else []), *entries, anything, nameless,
        ],
    }  # fmt: skip


def _inner_fusion() -> Schema:
    """A fusion inside another, which has none inside itself."""
    table = {name: part for name, part in table_of("fusion", {}).items() if not inner_keys(part)}
    code: Schema = {"type": "object", "properties": {"name": {"type": "string", "pattern": CODE}}, "required": ["name"]}
    sections = [_options("fusion", part, {"const": name}) for name, part in table.items()]
    return {"anyOf": [{"enum": list(table)}, {"type": "string", "pattern": CODE}, *sections, code]}


def _options(kind: str, part: type, name: Schema, *, named: bool = True) -> Schema:
    """The section of one class, by its constructor."""
    parameters = inspect.signature(part, eval_str=True).parameters.values()
    said = dict(_said_of_arguments(part))
    properties: dict[str, Schema] = {"name": name}
    required = ["name"] if named else []
    for one in parameters:
        if one.name in SIZES[kind] or one.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        schema = _of_type(one.annotation)
        if one.name in said:
            schema["description"] = said[one.name]
        if one.default is inspect.Parameter.empty:
            required.append(one.name)
        elif not schema.get("$ref"):
            schema["default"] = list(one.default) if isinstance(one.default, tuple) else one.default
        properties[one.name] = schema
    words = explain(part).words if kind != "loss" else (part.__doc__ or "").split("\n", 1)[0]
    return {
        "description": words, "type": "object", "properties": properties, "required": required,
        "additionalProperties": False,
    }  # fmt: skip


def _of_type(annotation: Any) -> Schema:
    """What a value of a constructor's type is in JSON, as `vqa.models.options` holds it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation == Inner:
        return {"$ref": "#/$defs/inner_fusion"}
    if origin is Annotated:
        bounds: Bounds = arguments[1]
        below = {} if bounds.below is None else {"exclusiveMaximum": bounds.below}
        return _of_type(arguments[0]) | {"minimum": bounds.least} | below
    if origin in (Union, UnionType):
        return {"anyOf": [_of_type(one) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _of_type(arguments[0])}
    if annotation is float:
        return {"type": "number", "minimum": -LARGEST_FLOAT, "maximum": LARGEST_FLOAT}
    return {"type": {int: "integer", str: "string", bool: "boolean", NoneType: "null"}[annotation]}


def _said_of_arguments(part: type) -> Iterator[tuple[str, str]]:
    """What the class's docstring says of each argument."""
    found = re.search(r"Args:\n(.*?)(?:\n\n|\n\s*\w+:\n|\Z)", inspect.cleandoc(part.__doc__ or "") + "\n\n", re.DOTALL)
    for entry in re.split(r"\n(?=    \S)", found[1] if found else ""):
        names, colon, text = entry.strip().partition(":")
        if colon:
            yield from ((name.strip(), " ".join(text.split())) for name in names.split(","))
