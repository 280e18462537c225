"""The Hugging Face hub: addresses of repositories and of files in them, fetched to this machine and pushed."""
