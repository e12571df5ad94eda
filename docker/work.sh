#!/bin/sh
# Deploy the project in this folder to the Prefect server and work for it until stopped.
# Settings: PREFECT_API_URL and PREFECT_API_AUTH_STRING, MLFLOW_TRACKING_URI, DVC_REMOTE_URL, AWS_*.
set -eu
# In config.local: an address is this machine's, and never goes into git.
dvc remote add --local --force --default served "$DVC_REMOTE_URL"
lapvqa schedule deploy
exec prefect worker start --pool lapvqa --with-healthcheck
