"""The admin of notes: nothing special is needed for the text."""

from django.contrib import admin

from notes.models import Note, Share

admin.site.register([Note, Share])
