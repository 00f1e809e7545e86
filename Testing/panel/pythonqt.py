"""PySide6 behind the face of PythonQt, the Qt that 3D Slicer's Python has.

Properties are attributes, a getter of a property is no method, signals are connected by signature, and a
function gets as many of a signal's arguments as it takes. What PythonQt would refuse is refused here too: the
names of Slicer's own widgets must be among those in slicer_widgets.json.
"""

import inspect
import json
import types
from pathlib import Path

from PySide6 import QtCore, QtGui, QtWidgets

SLICER_WIDGETS = json.loads(Path(__file__).with_name("slicer_widgets.json").read_text(encoding="utf-8"))
_MODULES = (QtCore, QtGui, QtWidgets)


def qt_class(name):
    """A class of Qt by name, or None."""
    return next((getattr(module, name) for module in _MODULES if hasattr(module, name)), None)


def ancestry(name):
    """The Slicer classes from `name` upwards, and the Qt class below them."""
    chain = []
    while name in SLICER_WIDGETS:
        chain.append(SLICER_WIDGETS[name])
        name = SLICER_WIDGETS[name]["base"]
    return chain, qt_class(name)


def known(name, kind):
    """Names of one kind ("prop", "call", "signal") of a Slicer class and those it derives from."""
    kinds = ("slot", "invokable") if kind == "call" else (kind,)
    chain, _ = ancestry(name)
    return {entry for described in chain for part in kinds for entry in described.get(part, ())}


def has_property(name, member):
    """Whether objects of a class have a property."""
    return member in known(name, "prop") or ancestry(name)[1].staticMetaObject.indexOfProperty(member) >= 0


def has_method(name, member):
    """Whether Python can call a method of a class."""
    base = ancestry(name)[1]
    return member in known(name, "call") or (
        callable(getattr(base, member, None)) and not has_property(name, member)
    )


def has_signal(name, signature):
    """Whether a class has a signal."""
    normal = QtCore.QMetaObject.normalizedSignature(signature)
    normal = bytes(normal.data()).decode() if hasattr(normal, "data") else str(normal)
    base = ancestry(name)[1].staticMetaObject
    return signature in known(name, "signal") or base.indexOfSignal(normal) >= 0


class Wrapped:
    """A Qt object as PythonQt shows it."""

    def __init__(self, target):
        object.__setattr__(self, "_target", target)

    def __getattr__(self, member):
        target = self._target
        name = type(target).__name__
        if member == "name":
            return target.objectName()
        if member == "connect":
            return self._connect
        if has_property(name, member):
            return wrap(target.property(member))
        if not has_method(name, member):
            raise AttributeError(f"{name} has no {member} in PythonQt")
        method = getattr(target, member)
        return lambda *arguments: wrap(method(*map(unwrap, arguments)))

    def __setattr__(self, member, value):
        if not has_property(type(self._target).__name__, member):
            raise AttributeError(f"{type(self._target).__name__} has no property {member}")
        self._target.setProperty(member, unwrap(value))

    def __eq__(self, other):
        return isinstance(other, Wrapped) and self._target is other._target

    def __hash__(self):
        return id(self._target)

    def _connect(self, signature, function):
        name = type(self._target).__name__
        if not has_signal(name, signature):
            raise AttributeError(f"{name} has no signal {signature}")
        taken = _argument_count(function)

        def call(*arguments):
            function(*[wrap(value) for value in arguments[:taken]])

        # PySide6 gives a function with any number of arguments none of those that have a default.
        forms = (lambda: call(), lambda one: call(one), lambda one, two: call(one, two))
        parameters = [text for text in signature.split("(")[1].rstrip(")").split(",") if text]
        getattr(self._target, signature.split("(")[0]).connect(forms[len(parameters)])


def _argument_count(function):
    code = (function.__func__ if inspect.ismethod(function) else function).__code__
    if code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_argcount - inspect.ismethod(function)


def wrap(value):
    return Wrapped(value) if isinstance(value, QtCore.QObject) else value


def unwrap(value):
    return value._target if isinstance(value, Wrapped) else value


def qt_module():
    """What `import qt` gives in 3D Slicer."""
    module = types.ModuleType("qt")

    def lookup(name):
        found = qt_class(name)
        if found is None:
            raise AttributeError(name)
        if isinstance(found, type) and issubclass(found, QtCore.QObject):
            return _Constructor(found)
        return found

    module.__getattr__ = lookup
    return module


class _Constructor:
    def __init__(self, made):
        self._made = made

    def __call__(self, *arguments):
        return Wrapped(self._made(*map(unwrap, arguments)))

    def __getattr__(self, member):
        found = getattr(self._made, member)
        return (
            found
            if not callable(found) or isinstance(found, type)
            else (lambda *arguments: wrap(found(*map(unwrap, arguments))))
        )
