"""Forms of a `CollaborativeTextField`: what was shown comes back beside what was made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.utils.html import format_html

_SUFFIX: Final = "-base"


class Edited(str):
    """A text from a form, and what the form has shown before.

    Attributes:
        base: what was shown; None if the form did not say.
    """

    base: str | None = None

    @classmethod
    def of(cls, text: str, base: str | None) -> Edited:
        """Make one of both."""
        made = cls(text)
        made.base = base
        return made

    def __reduce__(self) -> Any:
        return Edited.of, (str(self), self.base)


class WithBase(forms.Widget):
    """A widget with a hidden input behind it that holds what is shown."""

    def __init__(self, widget: forms.Widget) -> None:
        super().__init__(widget.attrs)
        self.widget = widget
        self.is_required = widget.is_required

    @property
    def media(self) -> Any:
        """What the widget needs."""
        return self.widget.media

    def __deepcopy__(self, memo: Any) -> WithBase:
        import copy

        made = WithBase(copy.deepcopy(self.widget, memo))
        made.is_required = self.is_required
        # A form may set them on this one.
        made.attrs = self.attrs.copy()
        return made

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> Any:
        """Show the widget, and hide what its text was when the form was shown first."""
        shown = "" if value is None else str(value)
        base = value.base if isinstance(value, Edited) and value.base is not None else shown
        inner = self.widget.render(name, shown, {**self.attrs, **(attrs or {})}, renderer)
        return format_html('{}<input type="hidden" name="{}" value="{}">', inner, name + _SUFFIX, base)

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        """Read both; browsers send lines with CR LF at their ends, documents have LF."""
        value = self.widget.value_from_datadict(data, files, name)
        if value is None:
            return None
        base = data.get(name + _SUFFIX) if isinstance(data, Mapping) else None
        return Edited.of(_lines(str(value)), None if base is None else _lines(str(base)))

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Tell whether the form did not hold it."""
        return self.widget.value_omitted_from_data(data, files, name)

    def id_for_label(self, id_: str) -> str:
        """Give the ID of what the label is for."""
        return self.widget.id_for_label(id_)

    def use_required_attribute(self, initial: Any) -> bool:
        """Tell whether the browser may insist on a text."""
        return self.widget.use_required_attribute(initial)


class CollaborativeFormField(forms.CharField):
    """A text that knows what it was before."""

    def __init__(self, **given: Any) -> None:
        # White space at the end is somebody's who is typing just now.
        super().__init__(**{**given, "strip": False})

    def clean(self, value: Any) -> Any:
        """Check the text, and keep what it was."""
        cleaned = super().clean(value)
        base = value.base if isinstance(value, Edited) else None
        return Edited.of(cleaned, base) if isinstance(cleaned, str) else cleaned

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Tell whether the form was sent with another text than it has shown; others may have changed it meanwhile."""
        if self.disabled or not isinstance(data, Edited) or data.base is None:
            return super().has_changed(initial, data)
        return str(data) != data.base


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
