// The camera: which there are, starting one, and why one does not start.

/** @returns {Promise<MediaStream>} */
export async function openCamera(deviceId) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("insecure");
  const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
  return navigator.mediaDevices.getUserMedia({ audio: false, video: { ...which, width: { ideal: 640 }, height: { ideal: 480 } } });
}

/** Named only after a camera was allowed. */
export async function cameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind }) => kind === "videoinput");
}

/** A sentence for what getUserMedia, or openCamera, threw. */
export function whyNot(error) {
  if (error.message === "insecure") return "The browser gives the camera only to pages from https or localhost; this one is neither. A picture works.";
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return "The camera was refused. Allow it for this page in the browser's settings, then start it again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "There is no camera on this machine, or it was unplugged. A picture works.";
    case "NotReadableError":
    case "AbortError":
      return "The camera does not answer; another program may be using it.";
    default:
      return `The camera does not start: ${error.message}`;
  }
}
