"""Students that users give: what they have to answer, how long they learn, how they stand in."""
