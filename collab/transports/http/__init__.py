"""Plain HTTP: documents, links for guests, health, the pages."""
