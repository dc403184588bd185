#!/bin/sh
# Run Python with the interpreter that belongs to this checkout, whatever PATH the caller has:
# the one that started the runner, an activated environment, the checkout's .venv, then PATH.
# Threads that wait sleep instead of spinning: on a busy machine spinning costs a stage most of its speed.
export DUALPRIV_PARENT=$PPID PYTHONUNBUFFERED=1 OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
for python in "$DUALPRIV_PYTHON" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" .venv/bin/python \
    "${DVC_ROOT:+$DVC_ROOT/.venv/bin/python}" "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python}"; do
    if [ -n "$python" ] && [ -x "$python" ]; then
        exec "$python" "$@"
    fi
done
exec python3 "$@"
