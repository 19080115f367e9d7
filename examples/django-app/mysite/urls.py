"""The addresses of the project."""

from django.contrib import admin
from django.urls import include, path
from notes import views

urlpatterns = [
    path("", views.index),
    path("notes/<int:pk>/", views.note, name="note"),
    path("notes/<int:pk>/share/", views.share, name="share"),
    path("accounts/", include("django.contrib.auth.urls")),
    path("collab/", include("collab.contrib.django.urls")),
    path("admin/", admin.site.urls),
]
