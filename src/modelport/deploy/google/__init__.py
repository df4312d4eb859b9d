"""What the targets on Google Cloud, and their applier, are made of.

::

    place       projects, regions, accounts, images     ┐
    traffic     splits, and what becomes of them        │ plain data: what targets import
    run         Cloud Run: settings, instances          │
    rollout     Cloud Run: calls                        │
    manifest    Cloud Run and Knative as YAML           │
    vertex      Vertex AI: settings, machines, calls    ┘
    messages    plain data to the SDK's types and back  ┐
    refusals    the SDK's errors as ours                │ with the SDK: what the applier imports
    iam         accounts and roles, over REST           ┘

The targets make plans of it: the order, limits, notes, files and commands.
"""
