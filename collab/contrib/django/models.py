"""What has to reach the server yet, and how far the fields are that mirror documents.

`collab.contrib.django.mirror` has the rule by which both are read and written.
"""

from __future__ import annotations

from django.db import models


class PendingEdit(models.Model):
    """An edit of a document that was saved with a row, until the server has it.

    It is written in the transaction of the row. So a row whose server is away is saved all the same, and nothing of it
    is lost: the edit is sent when the server answers again.
    """

    EDIT, DELETE = "edit", "delete"

    id = models.BigAutoField(primary_key=True)
    document = models.CharField(max_length=512, db_index=True)
    kind = models.CharField(max_length=10, choices=[(EDIT, "edit"), (DELETE, "delete")], default=EDIT)
    root = models.CharField(max_length=1024, blank=True)
    format = models.CharField(max_length=10, default="text")
    base = models.TextField(blank=True, help_text="What its author saw before the edit.")
    text = models.TextField(blank=True, help_text="What its author has made of it.")
    field = models.CharField(max_length=300, blank=True, help_text="The field that it was saved with: app.Model.field.")
    key = models.CharField(max_length=300, blank=True, help_text="The primary key of the row.")
    sent = models.BooleanField(
        default=False, help_text="The server was asked for it, and has not answered: the document may have it."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    attempts = models.PositiveIntegerField(default=0)
    claimed_until = models.DateTimeField(null=True, help_text="A process is sending it, or has died while it did.")
    failed = models.BooleanField(default=False, help_text="The server has refused it; it is not sent again by itself.")
    error = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ("id",)
        indexes = (models.Index(fields=("failed", "id"), name="collab_pending"),)

    def __str__(self) -> str:
        return f"{self.kind} of {self.document}"


class Mirror(models.Model):
    """How far the fields are that mirror a document: an older text never comes after a newer one.

    Its ``number`` is 0 until a mirror has been written: a process that sends an edit knows the row alone.
    """

    id = models.BigAutoField(primary_key=True)
    document = models.CharField(max_length=512, unique=True)
    number = models.BigIntegerField(help_text="Of the document in the store: another one when it is created anew.")
    last = models.BigIntegerField(
        help_text="The row of the log up to which a text must be at the least, to be written into the fields."
    )
    at = models.DateTimeField(auto_now=True, db_index=True)
    behind = models.DateTimeField(
        null=True, db_index=True, help_text="Since when the fields have to be written anew; null if they have not."
    )

    def __str__(self) -> str:
        return f"{self.document} up to {self.last}"
