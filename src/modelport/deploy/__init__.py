"""From a package to any platform: planned, applied, verified.

A *target* turns a package and settings into a `Plan`: files, API calls in order, limits with
margins, the rights that are needed. That is pure: no network, no credentials, no clock. An
*applier* runs the calls with the platform's own SDK. `stage` puts the two together.
"""
