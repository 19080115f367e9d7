"""``path("collab/", include("collab.contrib.django.urls"))``."""

from __future__ import annotations

from django.urls import path

from collab.contrib.django.views import token

app_name = "collab"
urlpatterns = [path("token/", token, name="token")]
