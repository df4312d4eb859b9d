"""What the targets on Azure, and their appliers, are made of; nothing here imports an SDK.

::

    place       subscriptions, groups, secrets: what names may be
    functions   a function app: settings, sizes, code        template   its resources
    archive     what is published                            online     Azure ML's documents
    traffic     shares of an endpoint                        errors     the SDKs' errors as ours
"""
