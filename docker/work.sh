#!/bin/sh
# Deploy the project in this folder to the Prefect server and work for it until stopped.
# Settings: PREFECT_API_URL and PREFECT_API_AUTH_STRING, MLFLOW_TRACKING_URI, DVC_REMOTE_URL, AWS_*.
set -eu
LAPVQA_PROJECT=$PWD
LAPVQA_DEPLOYMENT=${LAPVQA_DEPLOYMENT:-$(basename "$PWD")-$(printf %s "$(hostname):$PWD" | sha256sum | cut -c1-8)}
export LAPVQA_PROJECT LAPVQA_DEPLOYMENT
# In config.local: an address is this machine's, and never goes into git.
dvc remote add --local --force --default served "$DVC_REMOTE_URL"
prefect work-pool inspect lapvqa >/dev/null 2>&1 || prefect work-pool create lapvqa --type process
prefect --no-prompt deploy --all
exec prefect worker start --pool lapvqa --with-healthcheck
