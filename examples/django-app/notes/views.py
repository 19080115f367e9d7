"""The pages: a list, a note, and sharing it."""

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from collab.contrib.django import changed
from collab.contrib.django.views import colour
from notes.access import permission
from notes.models import Note, Share


@login_required
def index(request):
    """List the notes that the user may read."""
    mine = Note.objects.filter(Q(owner=request.user) | Q(shares__user=request.user)).distinct()
    return render(request, "notes/index.html", {"notes": mine})


@login_required
def note(request, pk):
    """Show a note in an editor."""
    found = get_object_or_404(Note, pk=pk)
    document = f"note-{pk}"
    if permission(request.user, document) is None:
        raise PermissionDenied
    name = request.user.get_full_name() or request.user.get_username()
    page = {
        "document": document,
        "port": settings.COLLAB["PORT"],
        "user": {"name": name, "color": colour(request.user)},
    }
    others = get_user_model().objects.exclude(pk=found.owner_id)
    shares = {share.user_id: share.access for share in found.shares.all()}
    people = [{"user": other, "access": shares.get(other.pk, "")} for other in others]
    return render(request, "notes/note.html", {"note": found, "page": page, "people": people})


@require_POST
@login_required
def share(request, pk):
    """Let the owner say what somebody else may do; it takes effect at once, also for whoever is in the note."""
    found = get_object_or_404(Note, pk=pk, owner=request.user)
    other = get_object_or_404(get_user_model(), pk=request.POST["user"])
    access = request.POST.get("access", "")
    if access in ("read", "write"):
        Share.objects.update_or_create(note=found, user=other, defaults={"access": access})
    else:
        Share.objects.filter(note=found, user=other).delete()
    changed(document=f"note-{pk}", user=other)
    return redirect("note", pk)
