"""Shows the constructors that Equinox makes, which a parser of the source cannot see."""

import dataclasses
import importlib
import inspect
from typing import Any

import equinox as eqx
import griffe


class Constructors(griffe.Extension):
    """Gives every Equinox module without an `__init__` of its own the parameters of its fields."""

    def on_class_members(
        self, *, cls: griffe.Class, **kwargs: Any
    ) -> None:
        if "__init__" in cls.members or not cls.path.startswith(
            "bohmdiff."
        ):
            return
        module = importlib.import_module(cls.module.path)
        built = getattr(module, cls.name, None)
        if not (
            inspect.isclass(built) and issubclass(built, eqx.Module)
        ) or inspect.isabstract(built):
            return
        parameters = [
            griffe.Parameter(
                "self", kind=griffe.ParameterKind.positional_or_keyword
            )
        ]
        for field in dataclasses.fields(built):
            if not field.init:
                continue
            source = cls.members.get(field.name)
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            parameters.append(
                griffe.Parameter(
                    field.name,
                    annotation=getattr(source, "annotation", None),
                    kind=griffe.ParameterKind.positional_or_keyword,
                    default=None
                    if default is dataclasses.MISSING
                    else repr(default),
                )
            )
        init = griffe.Function(
            "__init__",
            parameters=griffe.Parameters(*parameters),
            parent=cls,
        )
        cls.set_member("__init__", init)
