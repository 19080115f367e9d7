"""``manage.py demo``: two people and a note, for trying things out."""

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from notes.models import Note, Share


class Command(BaseCommand):
    """Create Ada, who may use the admin, and Grace, and a note that both may write."""

    help = "Create two people, ada and grace, whose passwords are their names, and a note that both may write."

    def handle(self, *args, **options):
        """Create what is not there yet."""
        users = get_user_model().objects
        ada, _ = users.get_or_create(username="ada", first_name="Ada", is_staff=True, is_superuser=True)
        grace, _ = users.get_or_create(username="grace", first_name="Grace")
        for user in (ada, grace):
            user.set_password(user.username)
            user.save()
        note, new = Note.objects.get_or_create(title="The plan", owner=ada, defaults={"text": "Write it down.\n"})
        if new:
            Share.objects.create(note=note, user=grace, access="write")
        self.stdout.write("sign in as ada (password ada) or grace (password grace)")
