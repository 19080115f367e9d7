"""The tables of edits that wait, and of mirrors."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Create them."""

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Mirror",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("document", models.CharField(max_length=512, unique=True)),
                (
                    "number",
                    models.BigIntegerField(
                        help_text="Of the document in the store: another one when it is created anew."
                    ),
                ),
                ("last", models.BigIntegerField(help_text="The row of the log up to which the fields are.")),
                ("at", models.DateTimeField(auto_now=True, db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="PendingEdit",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("document", models.CharField(db_index=True, max_length=512)),
                (
                    "kind",
                    models.CharField(choices=[("edit", "edit"), ("delete", "delete")], default="edit", max_length=10),
                ),
                ("root", models.CharField(blank=True, max_length=1024)),
                ("format", models.CharField(default="text", max_length=10)),
                ("base", models.TextField(blank=True, help_text="What its author saw before the edit.")),
                ("text", models.TextField(blank=True, help_text="What its author has made of it.")),
                (
                    "field",
                    models.CharField(
                        blank=True, help_text="The field that it was saved with: app.Model.field.", max_length=300
                    ),
                ),
                ("key", models.CharField(blank=True, help_text="The primary key of the row.", max_length=300)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                (
                    "claimed_until",
                    models.DateTimeField(help_text="A process is sending it, or has died while it did.", null=True),
                ),
                (
                    "failed",
                    models.BooleanField(
                        default=False, help_text="The server has refused it; it is not sent again by itself."
                    ),
                ),
                ("error", models.CharField(blank=True, max_length=500)),
            ],
            options={
                "ordering": ("id",),
                "indexes": [models.Index(fields=["failed", "id"], name="collab_pending")],
            },
        ),
    ]
