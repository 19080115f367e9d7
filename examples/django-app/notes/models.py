"""Notes, and who may do what with them."""

from django.conf import settings
from django.db import models

from collab.contrib.django.fields import CollaborativeTextField


class Note(models.Model):
    """A note; its text is edited in the browser by several people, and in the admin."""

    title = models.CharField(max_length=200)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    text = CollaborativeTextField(blank=True, document="note-{pk}", root="text", on_delete_document=True)

    def __str__(self) -> str:
        return self.title


class Share(models.Model):
    """What somebody else may do with a note."""

    note = models.ForeignKey(Note, on_delete=models.CASCADE, related_name="shares")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    access = models.CharField(max_length=5, choices=[("read", "may read"), ("write", "may write")])

    class Meta:
        unique_together = (("note", "user"),)

    def __str__(self) -> str:
        return f"{self.user} {self.access}"
