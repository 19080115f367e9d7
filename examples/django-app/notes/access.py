"""Who may do what with a document: the collaboration server asks this function."""

from notes.models import Note, Share


def permission(user, document):
    """Give "read", "write", "admin" or None for a user and the name of a document."""
    kind, _, pk = document.partition("-")
    if kind != "note" or not pk.isdecimal() or not user.is_authenticated:
        return None
    note = Note.objects.filter(pk=pk).first()
    if note is None:
        return None
    if user.is_superuser or note.owner_id == user.pk:
        return "write"
    share = Share.objects.filter(note=note, user=user).first()
    return share.access if share else None
