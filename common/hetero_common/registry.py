"""One way to plug in: things by name, each of which says itself what there is to know of it.

    @STRATEGIES.add("averaging", "a replica per client, averaged layer by layer")
    class AveragingStrategy: ...

names a thing of ours, and `--strategy averaging` takes it. `--strategy package.module:name` takes a
thing of the user's own, which may be declared in the same way in its module.

Names are checked where settings are read, and nothing is imported for it: a name may have come from
the other side of a network. Whoever looks a thing up runs its code.
"""

from __future__ import annotations

import difflib
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from hetero_common.errors import SettingsError

T = TypeVar("T")
Declared = TypeVar("Declared")

Refuses = Callable[[Any], str | None]
"""Settings in, and the sentence with which a thing refuses them out; None if it takes them."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What a registry knows of a thing.

    Attributes:
        name: By which settings name it.
        summary: One line for the reference.
        thing: The thing itself.
        options: Settings that it has of its own, as a model with a docstring for each.
        refuses: What it does not go together with.
    """

    name: str
    summary: str
    thing: T
    options: type[BaseModel] | None = None
    refuses: Refuses = lambda settings: None


class Registry(Generic[T]):
    """All things of one kind.

    As the metadata of a field, `Annotated[str, STRATEGIES]`, it checks names in settings.

    Args:
        kind: What they are, in sentences: `strategy`.
        found_in: A package that is imported before the first name is looked up, since its modules
            declare what there is.
        takes_own: Users may bring things of their own, as `package.module:name`.
        takes: Also takes names of another form; `takes_form` says of which.
        takes_form: That form, in sentences.
    """

    def __init__(
        self,
        kind: str,
        *,
        found_in: str = "",
        takes_own: bool = True,
        takes: Callable[[str], bool] = lambda name: False,
        takes_form: str = "",
    ) -> None:
        self.kind = kind
        self.takes_own = takes_own
        self._takes = takes
        self._takes_form = takes_form
        self._found_in = found_in
        self._declared: dict[str, Entry[T]] = {}

    @property
    def _entries(self) -> dict[str, Entry[T]]:
        if self._found_in:
            package, self._found_in = self._found_in, ""
            import_module(package)
        return self._declared

    def add(
        self,
        name: str,
        summary: str,
        *,
        options: type[BaseModel] | None = None,
        refuses: Refuses = lambda settings: None,
    ) -> Callable[[Declared], Declared]:
        """Declare the thing that follows; it stays what it is.

        Args:
            name: By which settings name it.
            summary: One line for the reference, without a full stop.
            options: Settings that it has of its own.
            refuses: Says what it does not go together with.
        """

        def declare(thing: Declared) -> Declared:
            self._declared[name] = Entry(name, summary, thing, options, refuses)  # type: ignore[arg-type]  # the registry's user says what T is
            return thing

        return declare

    def discover(
        self, package: str, folder: Iterable[str], leave_out: Collection[str] = ()
    ) -> None:
        """Import the modules of a package, in which things of this kind are declared."""
        for name in sorted(module.name for module in pkgutil.iter_modules(folder)):
            if name not in leave_out:
                import_module(f"{package}.{name}")

    def names(self) -> tuple[str, ...]:
        """The names of our own things, in the order of their declarations."""
        return tuple(self._entries)

    def __iter__(self) -> Iterator[str]:
        """The names of our own things."""
        return iter(self.names())

    def entries(self) -> Iterator[Entry[T]]:
        """Our own things."""
        yield from self._entries.values()

    def entry(self, name: str) -> Entry[T]:
        """Return what is known of a thing; one of the user's own is imported.

        Raises:
            SettingsError: There is no such thing.
        """
        if name in self._entries:
            return self._entries[name]
        if not (self.takes_own and is_own(name)):
            raise self.unknown(name)
        thing = import_own(name, self.kind)
        for entry in self._entries.values():  # declared in its own module
            if entry.thing is thing:
                return entry
        summary = (getattr(thing, "__doc__", None) or "").strip().partition("\n")[0]
        return Entry(name, summary, thing)  # type: ignore[arg-type]  # its user has to know

    def unknown(self, name: str) -> SettingsError:
        """The error that there is no such thing; it names those that there are."""
        return SettingsError(f"unknown {self.kind} {name!r}: {self._choices(name)}")

    def __getitem__(self, name: str) -> T:
        """The thing of this name; raises what `entry` does."""
        return self.entry(name).thing

    def checked(self, name: str) -> str:
        """The name, if it may be one; nothing is imported.

        Raises:
            ValueError: There can be no such thing.
        """
        is_known = name in self._entries and not name.endswith(":")
        if is_known or self._takes(name) or (self.takes_own and is_own(name)):
            return name
        raise ValueError(self._choices(name))

    def shown(self) -> list[str]:
        """The names as people write them; those that take a path come last."""
        return [_shown(name) for name in sorted(self._entries, key=lambda n: n.endswith(":"))]

    def told(self) -> str:
        """All choices with their summaries, for `--help` and the reference."""
        listed = [f"{_shown(entry.name)} ({entry.summary})" for entry in self._entries.values()]
        return "; ".join([*listed, *self.others()])

    def options(self) -> tuple[type[BaseModel], ...]:
        """The options of all things, to be bases of a settings model."""
        return tuple(entry.options for entry in self._entries.values() if entry.options)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the name behind whatever else the field asks for."""
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def _choices(self, name: str) -> str:
        *first, last = [*self.shown(), *self.others()]
        close = difflib.get_close_matches(name, self._entries, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"choose one of {', '.join(first)} or {last}{hint}" if first else f"choose {last}"

    def others(self) -> list[str]:
        """Forms of names beside those of our own things, in sentences."""
        own = ["your own as package.module:name"] if self.takes_own else []
        return [*([self._takes_form] if self._takes_form else []), *own]


def _shown(name: str) -> str:
    """A name as people write it; what ends with a colon takes a path behind it."""
    return f"{name}PATH" if name.endswith(":") else name


def is_own(name: str) -> bool:
    """Whether a name has the form of a thing of the user's own, `package.module:name`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), attribute))


def import_own(name: str, kind: str) -> object:
    """Import a thing of the user's own.

    Exceptions of the user's own code pass through: to mend it, they need the traceback.

    Args:
        name: `package.module:name`; the module is looked for where the user stands, too.
        kind: What it is, for a sentence.

    Raises:
        SettingsError: It was not found.
    """
    module_name, _, attribute = name.partition(":")
    with current_directory_on_path():
        try:
            module = import_module(module_name)
        except ImportError as error:
            raise SettingsError(
                f"{kind} {name!r} cannot be imported ({error}): "
                "start in the directory that holds it, or install what is missing"
            ) from error
    thing: object = getattr(module, attribute, None)
    if thing is None:
        raise SettingsError(
            f"{kind} {name!r} was not found: {module_name} has no {attribute!r}; "
            "define it there or correct the name"
        )
    return thing


@contextmanager
def current_directory_on_path() -> Iterator[None]:
    """Import from where the user stands, as `python -m` does and a console script does not."""
    directory = str(Path.cwd())
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)


def registry_of(field: FieldInfo) -> Registry[Any] | None:
    """The registry that a settings field takes its names from, if it takes them from one."""
    metadata = list(field.metadata)
    for member in get_args(field.annotation):  # of `Annotated[str, ...] | None`
        metadata += getattr(member, "__metadata__", ())
    return next((each for each in metadata if isinstance(each, Registry)), None)
