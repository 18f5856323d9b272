lock:
	UV_FIND_LINKS= uv pip compile --universal --python-version 3.11 --excludes envs/lock-excludes.txt \
	  --constraint envs/constraints.txt pyproject.toml --extra pipeline --extra cluster --extra dev -o envs/requirements.lock
