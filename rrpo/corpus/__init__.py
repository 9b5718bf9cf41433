"""Speech data: the simulated world (texts, speakers, emotions, artefacts, rendered speech) and manifests of real speech."""
