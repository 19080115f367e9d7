"""The HTTP API under ``/api/v1``: a module for each part of it, one way to say what a route takes and gives.

===============  ===============================================================================
``route``        what a route is, and how it is served
``description``  OpenAPI 3.1, made of the routes
``page``         the same to be read by people, without anything from elsewhere
``cursors``      where a list goes on
the others       one part of the API each: models, handlers, and a function that gives its routes
===============  ===============================================================================
"""
