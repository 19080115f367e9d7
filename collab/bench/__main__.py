"""``python -m collab.bench`` is ``collab bench``."""

from collab.bench.cli import app

if __name__ == "__main__":
    app(prog_name="collab bench")
