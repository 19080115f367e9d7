"""The tables of `collab.contrib.django.models`."""
