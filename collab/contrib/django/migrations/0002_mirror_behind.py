"""Fields that have to be written anew are noted, and edits that the server may have."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Add the columns for that."""

    dependencies = [("collab", "0001_initial")]

    operations = [
        migrations.AlterField(
            model_name="mirror",
            name="last",
            field=models.BigIntegerField(
                help_text="The row of the log up to which a text must be at the least, to be written into the fields."
            ),
        ),
        migrations.AddField(
            model_name="pendingedit",
            name="sent",
            field=models.BooleanField(
                default=False, help_text="The server was asked for it, and has not answered: the document may have it."
            ),
        ),
        migrations.AddField(
            model_name="mirror",
            name="behind",
            field=models.DateTimeField(
                db_index=True,
                help_text="Since when the fields have to be written anew; null if they have not.",
                null=True,
            ),
        ),
    ]
