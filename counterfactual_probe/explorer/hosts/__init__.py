"""Where the explorer's page lives, beside a file: on a server of this machine, and in notebooks."""
