# `clearml-task --folder . --module app` makes "." the task's entry point, and the agent runs this.
from app.main import main

if __name__ == "__main__":
    main()
