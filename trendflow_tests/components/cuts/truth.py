"""Frames of the labelled videos that begin a new shot, seen by looking at the pictures around every boundary."""

HARD_CUTS: dict[str, list[int]] = {
    "big_buck_bunny_480p_30s.mp4": [285, 378, 553],
    "bbb_4k_4s.mp4": [42],
    "nasa_two_streams.mp4": [240],
    "nasa_hdr.mp4": [202],
    "fades.mp4": [],
    "people_139s.mp4": [],
    "cars_topdown_30s.mp4": [],
    "hello_face_speech.mp4": [],
    "frame_counter_462.mp4": [],
    "smpte_1080p_2997.mp4": [],
    "testsrc_av1.mkv": [],
}
